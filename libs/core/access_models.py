"""The tables about who reaches what, as SQLAlchemy models: functions of workers, tries to log in."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from core.model_base import NOW, Base


class FunctionSets(Base):
    """The sets of worker functions that exist, by the digest at the end of their names (core/functions.py)."""

    __tablename__ = "function_sets"

    digest: Mapped[str] = mapped_column(primary_key=True)
    made_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Installation(Base):
    """What is decided once for an installation. `worker_rights` is "tables" or "functions" (core/roles.py)."""

    __tablename__ = "installation"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class LoginTries(Base):
    """How much of the allowance of an address or an account is used up: all of it is there again at `whole_at`."""

    __tablename__ = "login_tries"

    key: Mapped[str] = mapped_column(primary_key=True)
    whole_at: Mapped[datetime] = mapped_column(index=True)
