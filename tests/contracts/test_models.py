"""What every model keeps to that answers without a server at an address; what servers keep to is in `test_backends`.

A new backend has its case in `CASES`: the same model twice, and one of other content under the same name.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from looper.cli.settings import settings
from looper.cli.wiring import answering, mlx_model
from looper.edges.models.mlx import nano_folder
from looper.errors import ModelUnfit
from looper.experiment.checks import check_context
from looper.protocols import ChatModel, ChatRequest, Message, Windowed
from looper.records.model import BACKENDS, SERVERS, Backend, ModelSpec
from looper.records.plan import Limits, Sampling
from looper.records.trajectory import FinishReason

CONTEXT_TOKENS = 2048
LINES: tuple[Message, ...] = (("system", "You repair programs."), ("user", "scale_oak is wrong."))


def _folder(folder: Path, content: str) -> ModelSpec:
    made = Path(shutil.copytree(nano_folder(), folder / "model", dirs_exist_ok=True))
    (made / "notes.json").write_text(f'"{content}"')
    return ModelSpec(backend="mlx", name=str(made))


def _script(folder: Path, content: str) -> ModelSpec:
    (folder / "script.txt").write_text(f"<bash>echo {content}</bash>\n---\n<done></done>")
    return ModelSpec(backend="scripted", name=str(folder / "script.txt"))


CASES: dict[Backend, Callable[[Path, str], ModelSpec]] = {
    "nano": lambda folder, content: ModelSpec(backend="nano", name="small" if content == "other" else ""),
    "mlx": _folder,
    "scripted": _script,
    "noop": lambda folder, content: ModelSpec(backend="noop"),
    "expert": lambda folder, content: ModelSpec(backend="expert"),
}
"""How a person names the model, made anew below a folder with the content."""
OF_TASKS: tuple[Backend, ...] = ("gold", "predictions")
"""These answer with what is recorded of a task, so there is no model to ask before one."""
ONE_CONTENT: tuple[Backend, ...] = ("noop", "expert")
"""What these say is a part of the program."""
ASKED: list[Backend] = [name for name in BACKENDS if name not in (*SERVERS, *OF_TASKS)]


@pytest.fixture(scope="module", params=ASKED)
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ModelSpec]:
    name: Backend = request.param
    if name not in CASES:
        pytest.fail(f"tests/contracts/test_models.py, CASES, has nothing for {name}")
    folder = tmp_path_factory.mktemp(name)
    return lambda content: CASES[name](folder, content)


def model_of(spec: ModelSpec) -> ChatModel:
    if spec.shows_losses:
        return mlx_model(spec, settings(), CONTEXT_TOKENS)
    return answering(spec, "", CONTEXT_TOKENS)


@pytest.fixture(scope="module")
def model(named: Callable[[str], ModelSpec]) -> Iterator[ChatModel]:
    with closing(model_of(named("one"))) as found:
        yield found


def request(spec: ModelSpec, text: str = "one", seed: int = 1) -> ChatRequest:
    """Drawn as warm as the backend takes it, within what it can be told."""
    traits = BACKENDS[spec.backend]
    highest = 1.0 if traits.highest_temperature is None else min(1.0, traits.highest_temperature)
    sampling = Sampling(top_p=0.9) if traits.sampling is None or "top_p" in traits.sampling else Sampling()
    messages = (*LINES[:-1], ("user", f"{LINES[-1][1]} {text}"))
    return ChatRequest(text, messages, 16, CONTEXT_TOKENS, highest, seed, 60.0, sampling)


def test_its_identity_is_the_same_when_asked_again_and_another_with_other_content(
    named: Callable[[str], ModelSpec],
) -> None:
    spec = named("one")
    first, second = model_of(spec), model_of(spec)
    assert first.identity() == first.identity() == second.identity() and first.identity().digest
    other = model_of(named("other"))
    if spec.backend not in ONE_CONTENT:
        assert other.identity().digest != first.identity().digest


def test_the_same_request_has_the_same_reply_from_a_process_that_goes_on_later(
    named: Callable[[str], ModelSpec], model: ChatModel
) -> None:
    """In the middle of a conversation too: what was kept for it is gone after an interruption."""
    asked = request(named("one"))
    first = model.reply(asked)
    turns: tuple[Message, ...] = (*asked.messages, ("assistant", first.text), ("user", "It fails."))
    second = model.reply(replace(asked, messages=turns))
    with closing(model_of(named("one"))) as later:
        assert later.reply(replace(asked, messages=turns)).text == second.text
        assert later.reply(replace(asked, conversation="again")).text == first.text


def test_its_replies_end_for_a_reason_and_count_by_its_own_tokenizer(
    named: Callable[[str], ModelSpec], model: ChatModel
) -> None:
    asked = request(named("one"))
    reply, counted = model.reply(asked), model.count_tokens(asked.messages)
    assert reply.finish_reason in FinishReason and reply.wall_s >= 0 and not reply.retries
    assert reply.usage.prompt_tokens == counted
    assert (reply.usage.completion_tokens is None) == (counted is None)
    assert (reply.usage.counted_by == "none") == (counted is None)
    if counted is not None:
        longer = model.count_tokens((*asked.messages, ("assistant", reply.text), ("user", "It fails.")))
        assert longer is not None and longer > counted
        assert reply.usage.completion_tokens is not None
        assert reply.usage.completion_tokens <= asked.max_output_tokens


def test_conversations_side_by_side_are_answered_as_alone(
    named: Callable[[str], ModelSpec], model: ChatModel
) -> None:
    requests = [request(named("one"), text, seed) for seed, text in enumerate(("one", "two", "three"))]
    alone = [model.reply(each).text for each in requests]
    for each in requests:
        model.forget(each.conversation)
    with ThreadPoolExecutor(3) as pool:
        assert [reply.text for reply in pool.map(model.reply, requests)] == alone


def test_a_plan_that_wants_more_than_its_window_is_refused(
    named: Callable[[str], ModelSpec], model: ChatModel, limits: Limits
) -> None:
    """Of each that reads its prompt; what does not has no window."""
    spec = named("one")
    window = model.window_tokens() if isinstance(model, Windowed) else None
    assert (window is not None) is spec.reads, f"`window_tokens` of {spec.backend} gives {window}"
    if window is None:
        return
    more = limits.model_copy(update={"context_tokens": window + 1})
    with pytest.raises(ModelUnfit, match=f"has a window of {window} tokens, and the plan wants {window + 1}"):
        check_context(model, "base", "", more, "")
