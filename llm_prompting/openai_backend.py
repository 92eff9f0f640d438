"""Ask a language model for a plan, through the `openai` client and any server that speaks it."""

import asyncio
import hashlib
import json
from importlib import resources
from string import Template
from typing import Any, ClassVar

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from llm_prompting.draft import AnswerError, PlanDraft, draft_schema, example_draft, read_answer
from llm_prompting.plan import PlanLimits, ScenePlan
from llm_prompting.planner import PlannerError
from llm_prompting.repair import repair

_ECHO_CHARS = 4000


class OpenAIBackend:
    """Plans with a language model: OpenAI, vLLM, llama.cpp, Ollama or another compatible server.

    The server is asked to enforce the schema, and the schema also stands in the instructions,
    because some servers enforce without showing and others show without enforcing. Nothing that
    the model writes is executed; it is read as data, checked and repaired.

    Args:
        model: Name of the model, as the server knows it.
        base_url: Where the server is, with its "/v1".
        api_key: Key for the server; local ones take any.
        temperature: Sampling temperature.
        timeout_s: Seconds for a whole plan, all asks together.
        max_reasks: How often an unusable answer is sent back with what is wrong about it.
        limits: How large its plans may be.
    """

    name: ClassVar[str] = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str = "none",
        temperature: float = 0.0,
        timeout_s: float = 20.0,
        max_reasks: int = 2,
        limits: PlanLimits | None = None,
    ) -> None:
        self.model = model
        self.temperature = temperature
        self._timeout_s = timeout_s
        self._max_reasks = max_reasks
        self._limits = limits or PlanLimits()
        self._instructions = instructions()
        self._reask = Template(_template("reask.md"))
        # Retries are ours: the client would wait as long as a server's Retry-After says.
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=0
        )
        self._enforces_schema = True

    @property
    def template(self) -> str:
        """Return the content hash of all words that the model is instructed with."""
        words = self._instructions + self._reask.template
        return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()

    async def plan(self, prompt: str, *, aspect: float = 1.0) -> ScenePlan:
        """Ask for a plan, check it, ask again if it is unusable, and repair it.

        Args:
            prompt: The sentence.
            aspect: Picture width over height.

        Returns:
            The plan, with repairs and the number of asks in its provenance.

        Raises:
            PlannerError: If no usable plan came in time; the reason says why.
        """
        asks = _Asks()
        try:
            async with asyncio.timeout(self._timeout_s):
                plan = await self._converse(prompt, aspect, asks)
        except TimeoutError as error:
            message = f"no plan within {self._timeout_s:g} s"
            raise PlannerError(message, reason="timeout", num_asks=asks.count) from error
        except openai.OpenAIError as error:
            reason, message = _reason(error)
            raise PlannerError(message, reason=reason, num_asks=asks.count) from error
        provenance = plan.provenance.model_copy(
            update={
                "planner": self.name,
                "model": self.model,
                "template": self.template,
                "num_asks": asks.count,
                "notes": (*plan.provenance.notes, *asks.notes),
            }
        )
        return plan.model_copy(update={"provenance": provenance})

    async def close(self) -> None:
        """Close the connections to the server."""
        await self._client.close()

    async def _converse(self, prompt: str, aspect: float, asks: "_Asks") -> ScenePlan:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": self._instructions},
            {"role": "user", "content": _question(prompt, aspect, self._limits)},
        ]
        fault = ""
        for _ in range(1 + self._max_reasks):
            answer = ""
            try:
                answer = await self._ask(messages, asks)
                return self._accept(read_answer(answer), prompt, aspect)
            except AnswerError as error:
                fault = str(error)
            if answer:
                messages.append({"role": "assistant", "content": answer[:_ECHO_CHARS]})
            messages.append({"role": "user", "content": self._reask.substitute(error=fault)})
        raise PlannerError(
            f"{asks.count} unusable answers, the last one: {fault}"[:300],
            reason="invalid",
            num_asks=asks.count,
        )

    def _accept(self, draft: PlanDraft, prompt: str, aspect: float) -> ScenePlan:
        plan = repair(draft, prompt, aspect=aspect, limits=self._limits)
        if not plan.objects:
            raise AnswerError("objects is empty, or no box has any area inside the picture.")
        return plan

    async def _ask(self, messages: list[ChatCompletionMessageParam], asks: "_Asks") -> str:
        asks.count += 1
        try:
            reply = await self._send_either_way(messages, asks)
        except (ValueError, RecursionError) as error:
            raise AnswerError("the answer is no chat completion.") from error
        finish_reason, refusal, content = _read_reply(reply)
        if refusal or finish_reason == "content_filter":
            text = refusal or "stopped by the server's content filter"
            raise PlannerError(text[:300], reason="refused", num_asks=asks.count)
        if finish_reason == "length":
            raise AnswerError("it was cut off. Write shorter phrases and fewer objects.")
        if not content.strip():
            raise AnswerError("it is empty.")
        return content

    async def _send_either_way(
        self, messages: list[ChatCompletionMessageParam], asks: "_Asks"
    ) -> object:
        try:
            return await self._send(messages, enforce=self._enforces_schema)
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            if not self._enforces_schema:
                raise
            reply = await self._send(messages, enforce=False)
        # Only now is it known that the schema was at fault, and not the request.
        self._enforces_schema = False
        asks.notes.append("the server does not enforce schemas")
        return reply

    async def _send(self, messages: list[ChatCompletionMessageParam], *, enforce: bool) -> object:
        extra: dict[str, Any] = {}
        if enforce:
            schema = {"name": "scene_plan", "strict": True, "schema": draft_schema()}
            extra["response_format"] = {"type": "json_schema", "json_schema": schema}
        return await self._client.chat.completions.create(
            model=self.model, messages=messages, temperature=self.temperature, **extra
        )


def _read_reply(reply: object) -> tuple[str, str, str]:
    # Finish reason, refusal and content. The client passes on whatever a server sent as a 200.
    data = reply.model_dump(warnings=False) if isinstance(reply, ChatCompletion) else {}
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise AnswerError("the answer is no chat completion.")
    found = (choice.get("finish_reason"), message.get("refusal"), message.get("content"))
    finish_reason, refusal, content = (text if isinstance(text, str) else "" for text in found)
    return finish_reason, refusal, content


class _Asks:
    def __init__(self) -> None:
        self.count = 0
        self.notes: list[str] = []


def instructions() -> str:
    """Return what the model is told before the sentence: rules, schema and one example."""
    return Template(_template("plan.md")).substitute(
        schema=json.dumps(draft_schema()),
        example=example_draft().model_dump_json(),
    )


def _question(prompt: str, aspect: float, limits: PlanLimits) -> str:
    width, height = (1024, round(1024 / aspect)) if aspect >= 1 else (round(1024 * aspect), 1024)
    # As JSON, so that nothing in the sentence can pass for the frame around it.
    return json.dumps(
        {
            "sentence": prompt,
            "picture": f"{width} x {height}",
            "most_objects": limits.max_objects,
        }
    )


def _template(name: str) -> str:
    return resources.files("llm_prompting").joinpath("templates", name).read_text("utf-8")


def _reason(error: openai.OpenAIError) -> tuple[str, str]:
    """Say in a word and a sentence why the server gave no answer."""
    if isinstance(error, openai.APITimeoutError):
        return "timeout", "the server did not answer in time"
    if isinstance(error, openai.APIConnectionError):
        return "connection", "the server cannot be reached"
    if isinstance(error, openai.RateLimitError):
        return "rate_limited", "the server takes no more requests now (429)"
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        return ("server_error" if status >= 500 else "rejected"), f"the server answered {status}"
    return "invalid", f"the client could not read the answer ({type(error).__name__})"
