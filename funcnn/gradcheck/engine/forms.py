"""The form of what each public check gets from the caller's functions, in the words of its errors."""

from typing import NamedTuple


class Form(NamedTuple):
    """How a check names the gradients that it gets.

    Fields:
        function: what returned them.
        values: what they are the gradients of.
        advice: what to return.
    """

    function: str
    values: str
    advice: str


_FORMS = {
    "check_layer": Form(
        "check_layer(layer): its backward",
        "(params, x)",
        "Return (dparams, dx) from backward, dparams in the containers of params.",
    ),
    "check_model": Form(
        "check_model(model): its backward",
        "the parameters",
        "Return (dparams, dx) from backward, dparams in the containers of params.",
    ),
    "check_vjp": Form(
        "check_vjp(vjp): its pullback",
        "the arguments",
        "Return a tuple with a gradient for each argument, in the containers of that argument.",
    ),
}


def form_of(name: str) -> Form:
    """Return the form of the gradients that a public check gets: by default, what a grad_fn returns."""
    usual = Form(f"{name}(grad_fn)", "the parameters", "Give one entry for every parameter, in the same containers.")
    return _FORMS.get(name, usual)
