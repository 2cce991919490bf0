"""The vLLM engine, the only room that imports vllm; knows no strategy."""
