"""What the pod template of a TaskQueue may not ask for.

The operator makes pods with rights of its own, so whoever may write a TaskQueue must gain nothing by it that he does
not have already: not the node, not another ServiceAccount, and not what lies in Secrets and volumes of the namespace.
Therefore everything is refused that Pod Security `restricted` forbids, and besides:

- Secrets and PersistentVolumeClaims, unless the operator's settings name them. TaskFlow's own namespace holds the key
  that signs logins and the data of a bundled database, and mounting is reading. ConfigMaps may be mounted: what must
  not be read does not belong there;
- tokens of a ServiceAccount in any form, a node chosen by name, and priorities of the system;
- what the operator has to decide itself for its promises to hold.

Only the TaskQueue's part is looked at: the chart's belongs to whoever installed TaskFlow. What a template leaves unsaid
is filled in by `objects`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from services.operator.policy import pods
from services.operator.policy.walk import Rules, Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rules", "problems"]

MOST_BYTES: Final = 64 * 1024
MOST_SENTENCES: Final = 10


def problems(template: Mapping[str, Any], rules: Rules) -> tuple[str, ...]:
    """Return a sentence for each thing that `template` may not have, with its path and how to mend it; () when none.

    Never raises: a template is whatever somebody wrote.
    """
    size = len(json.dumps(template, default=str).encode())
    if size > MOST_BYTES:
        return (f"spec.worker.template has {size} bytes; at most {MOST_BYTES} are allowed.",)
    walk = Walk("spec.worker.template", rules)
    pods.template(walk, template)
    if len(walk.found) > MOST_SENTENCES:
        return (*walk.found[:MOST_SENTENCES], f"There are {len(walk.found) - MOST_SENTENCES} more of these.")
    return tuple(walk.found)
