"""LangChain's ChatOpenAI against the server in $SERVER."""

import os

from langchain_openai import ChatOpenAI

URL = os.environ["SERVER"] + "/v1"
QUESTION = "What is 17 * 4 + 12 * 4?"

plain = ChatOpenAI(model="satisfice-mini", base_url=URL, api_key="none", temperature=0)
said = plain.invoke(QUESTION)
assert "116" in said.content, said
assert said.usage_metadata["output_tokens"] > 0
assert "".join(chunk.content for chunk in plain.stream(QUESTION)) == said.content

voting = ChatOpenAI(
    model="satisfice-mini", base_url=URL, api_key="none",
    extra_body={"decoding": {"strategy": "parallel_thinking", "params": {"paths": 4}}},
)  # fmt: skip
assert voting.invoke(QUESTION).content
assert [bool(answer.content) for answer in voting.batch([QUESTION] * 3)] == [True] * 3

virtual = ChatOpenAI(model="satisfice-mini@best_of_n", base_url=URL, api_key="none")
assert virtual.invoke([("system", "You do sums."), ("human", QUESTION)]).content

shaped = plain.with_structured_output(
    {
        "title": "Total",
        "type": "object",
        "properties": {"total": {"type": "integer", "minimum": 0, "maximum": 999}},
        "required": ["total"],
        "additionalProperties": False,  # or a small model goes on adding some
    },
    method="json_schema",
)
assert isinstance(shaped.invoke(QUESTION)["total"], int)
print("ok")
