"""The processes of TaskFlow, one package each."""

from core import garbage, pid1

# Here and not in each main: what they import takes a second, and a pod can be deleted meanwhile.
pid1.end_on_sigterm()
garbage.leave_imports()
