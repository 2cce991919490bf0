"""/tokenize, /detokenize, /tokenizer_info: a model's tokenizer and template, as vLLM has them."""

from typing import Annotated, Self

from fastapi import APIRouter, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from server.auth import permit_model
from server.bodies import Body, Message, Object, Token, Tool
from server.objects import Detokenized, Tokenized, TokenizerCard
from server.openapi import answers, takes
from server.parsing import read
from server.prompts import Rendering, check_ids, encode, of_messages
from server.served import Served
from server.service import key_of, service_of
from server.wire import dumps

router = APIRouter()

Name = Annotated[str, Field(min_length=1, max_length=512)]


class TokenizeBody(Body):
    """Body of POST /tokenize: a prompt or messages."""

    model: Name | None = None
    """Null is the first model."""
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    """By default true for a prompt, false for messages."""
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: Object | None = None
    tools: list[Tool] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt or messages")
        return self


class DetokenizeBody(Body):
    """Body of POST /detokenize."""

    model: Name | None = None
    tokens: Annotated[list[Token], Field(max_length=2**20)]


async def _served(request: Request, name: str | None) -> Served:
    """The model behind `name`, the first one for None, ready; ForbiddenError if the key may not."""
    fleet = service_of(request).fleet
    model = name or next(iter(fleet.settings.models), "")
    permit_model(key_of(request), fleet.resolve(model).base)
    return await fleet.serve(model)


@router.post("/tokenize", **takes(TokenizeBody, Tokenized, "Tokens"))
async def tokenize(request: Request) -> Response:
    """Token ids of a text or of messages under the chat template."""
    body = await read(request, TokenizeBody)
    served = await _served(request, body.model)
    tokens = await _tokens(served, body)
    answer: Tokenized = {
        "count": len(tokens),
        "max_model_len": served.max_context,
        "tokens": list(tokens),
        "token_strs": None,
    }
    if body.return_token_strs:
        answer["token_strs"] = [served.tokenizer.piece(token) for token in tokens]
    return Response(dumps(answer), media_type="application/json")


async def _tokens(served: Served, body: TokenizeBody) -> tuple[int, ...]:
    if body.prompt is not None:
        return await encode(served, body.prompt, body.add_special_tokens is not False)
    wanted = Rendering(
        messages=body.messages or (),
        tools=body.tools or (),
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        add_special_tokens=bool(body.add_special_tokens),
        variables=body.chat_template_kwargs,
    )
    return (await of_messages(served, wanted)).tokens


@router.post("/detokenize", **takes(DetokenizeBody, Detokenized, "Tokens"))
async def detokenize(request: Request) -> Response:
    """The text of token ids, special tokens shown."""
    body = await read(request, DetokenizeBody)
    served = await _served(request, body.model)
    check_ids(served, body.tokens, "tokens")
    text = served.tokenizer.decode(body.tokens, skip_special=False)
    return Response(dumps(Detokenized(prompt=text)), media_type="application/json")


@router.get("/tokenizer_info", **answers(TokenizerCard, "Tokens"))
async def tokenizer_info(request: Request) -> Response:
    """The first model's special tokens and chat template, for clients that tokenize remotely."""
    served = await _served(request, None)
    backend = served.tokenizer.hf
    card: TokenizerCard = {
        "model": served.id,
        "tokenizer_class": type(backend).__name__,
        "bos_token": backend.bos_token,
        "eos_token": backend.eos_token,
        "pad_token": backend.pad_token,
        "chat_template": served.template or backend.chat_template,
    }
    return Response(dumps(card), media_type="application/json")
