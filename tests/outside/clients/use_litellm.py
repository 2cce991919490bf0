"""LiteLLM against the server in $SERVER."""

import os

import litellm

CALL = {
    "model": "openai/satisfice-mini",
    "api_base": os.environ["SERVER"] + "/v1",
    "api_key": "none",
    "messages": [{"role": "user", "content": "What is 17 * 4 + 12 * 4?"}],
    "temperature": 0,
}

said = litellm.completion(**CALL)
assert "116" in said.choices[0].message.content
assert said.choices[0].message.reasoning_content
assert said.usage.completion_tokens > 0

parts, thought = [], []
for chunk in litellm.completion(**CALL, stream=True):
    parts.append(chunk.choices[0].delta.content or "")
    thought.append(getattr(chunk.choices[0].delta, "reasoning_content", None) or "")
assert "".join(parts) == said.choices[0].message.content
assert "".join(thought) == said.choices[0].message.reasoning_content

voted = litellm.completion(
    **CALL, extra_body={"decoding": {"strategy": "parallel_thinking", "params": {"paths": 4}}}
)
assert voted.choices[0].message.content

try:
    litellm.completion(**CALL, extra_body={"decoding": "nonsense"}, max_retries=0)
except litellm.BadRequestError as fault:
    assert "nonsense" in str(fault)
else:
    raise AssertionError("an unknown strategy was accepted")
print("ok")
