"""An API process with one address more: `POST /bench/bare` authenticates and checks a task's body, and writes nothing.

What a submit costs beyond that is its own. `python -m bench.bare` takes the settings of an API.
"""

from fastapi import Request, Response

from services.api import bodies, main
from services.api.deps import parts_of, principal_of
from services.api.routes import submits
from services.api.routes.tasks import as_json
from services.api.schemas.tasks import TaskIn

PATH = "/bench/bare"


async def bare(request: Request) -> Response:
    """Do what every submit begins with."""
    parts_of(request)
    who = await principal_of(request)
    task = bodies.checked(TaskIn, await bodies.read_json(request))
    return as_json({"type": task.type, "queue": task.queue, "owner_id": who.user_id}, 201, {})


if __name__ == "__main__":
    submits.HOT["POST", PATH] = bare
    raise SystemExit(main.main())
