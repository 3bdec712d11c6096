"""Type checks of tests follow Python's numeric tower: a `float` argument takes an int."""

import beartype

# jaxtyping's own option cannot pass a configuration to the checker of more than one package.
beartype.beartype = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # type: ignore[assignment]
