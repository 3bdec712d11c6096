"""Every public function that takes prompts brings them into one form before it does anything else."""

from __future__ import annotations

import inspect
import typing

import pandas as pd
import pytest

import tamperlens
from tamperlens import capability, directions, finetune, heads, neurons, prompts, rates
from tamperlens.base.errors import InputError

ROOMS = (capability, directions, finetune, heads, neurons, rates)
STUDIES = (tamperlens.spillover,)


def takes_prompts(function):
    """Names of the parameters that are annotated with `PromptsLike`, at any depth of a union."""
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except NameError:
        return []
    wanted = typing.get_args(prompts.PromptsLike)
    return [
        name
        for name in inspect.signature(function).parameters
        if set(wanted) <= set(typing.get_args(hints.get(name)))
    ]


def public():
    found = {}
    for room in ROOMS:
        for name in room.__all__:
            thing = getattr(room, name)
            made = thing.__init__ if inspect.isclass(thing) else thing
            if inspect.isfunction(made) and takes_prompts(made):
                found[f"{room.__name__}.{name}"] = thing, takes_prompts(made)
    for study in STUDIES:
        found[f"studies.{study.__name__}"] = study, takes_prompts(study)
    return found


FUNCTIONS = public()


def test_what_is_covered():
    known = {"rates.evaluate", "directions.find_direction", "neurons.snip", "heads.attribute", "finetune.run"}
    assert known <= {name.removeprefix("tamperlens.") for name in FUNCTIONS}
    assert len(FUNCTIONS) > 35


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("given", "needle"),
    [("Name a bird.", "one string"), (pd.DataFrame({"x": ["a"]}), "no column that is known to hold prompts")],
    ids=["string", "frame"],
)
def test_one_clear_error(name, given, needle, chat):
    thing, parameters = FUNCTIONS[name]
    # Without the type checks of the tests: what matters is that the prompts are looked at before all else.
    function = inspect.unwrap(thing.__init__ if inspect.isclass(thing) else thing)
    positional, named = [], {}
    for key, parameter in inspect.signature(function).parameters.items():
        other = chat("llama") if key in ("model", "other", "base", "tuned", "before", "after") else object()
        value = given if key in parameters else other
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.append(value)
        elif key in parameters or (
            parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        ):
            if parameter.kind is parameter.KEYWORD_ONLY:
                named[key] = value
            else:
                positional.append(value)
    with pytest.raises(InputError, match=needle):
        function(*positional, **named)
