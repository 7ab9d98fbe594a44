"""What each client is asked for: a call of one tool, whose arguments have few values.

The bundled model knows little of tools, so its choice is forced.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel

QUESTION = "What is the weather in Rome?"
CITIES = ("Rome", "Oslo")


class Weather(BaseModel):
    """The weather of a city."""

    model_config = {"extra": "forbid"}  # the small model would go on and on

    city: Literal["Rome", "Oslo"]
    degrees: Literal[10, 20]


def weather(city: Literal["Rome", "Oslo"]) -> str:
    """Tell the weather in a city."""
    return f"It is sunny in {city}."


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": list(CITIES)}},
            "required": ["city"],
        },
    },
}


def weather_of(arguments: str) -> str:
    """Return the city of a call."""
    return str(json.loads(arguments)["city"])
