"""The templates of all pages, of a file and of the server. What they are given is escaped: what a model, a task or a file says is text
and nothing else."""

from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from looper.views.live import go_on_text
from looper.views.show import duration, harmless, prompt_length, result_text, shortened, took_text


def static_file(name: str) -> bytes:
    """What pages load: the stylesheet of all of them, the report among them, and the scripts of those that are served."""
    return (resources.files("looper.views.web") / "static" / name).read_bytes()


@cache
def _environment() -> Environment:
    def load(name: str) -> str:
        return (resources.files("looper.views.web") / "templates" / f"{name}.html.j2").read_text("utf-8")

    found = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(load),
    )
    found.filters.update(
        harmless=harmless,
        duration=duration,
        go_on_text=go_on_text,
        prompt_length=prompt_length,
        result_text=result_text,
        shortened=shortened,
        took_text=took_text,
    )
    return found


def template(name: str) -> Template:
    return _environment().get_template(name)
