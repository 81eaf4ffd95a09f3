"""What all sites agree on before they begin: one TOML file, the same everywhere. Its digest goes with every message, so that
sites of different plans never mix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from labelwright.errors import SettingsError
from labelwright.sites.model import Features
from labelwright.sites.privacy import epsilon, releases
from labelwright.sites.robust import rule
from labelwright.sites.statistics import Shape
from labelwright.toml import tables_of

PLAN = "plan.toml"
ENCODER = "encoder.skops"


@dataclass(frozen=True)
class Member:
    """A site. address: host:port. key: its public keys (``labelwright sites key``), hexadecimal; empty: not authenticated."""

    address: str
    key: str = ""


@dataclass(frozen=True)
class Plan:
    """The agreement.

    classes: names. width: d of the encoded rows. label, id: columns. encoder: sha256 of ``encoder.skops`` ("": none).
    features: random features (0: linear). bandwidth: of their kernel. seed: of their directions.
    rounds, steps: exchanges, and gradient steps before each. rate, decay: learning rate, weight decay.
    warm: rounds before a site's noise matrix is learned. aggregate: nearest, trimmed, median, krum or mean.
    limit: the largest weight taken. stale: rounds by which a message may be late. strikes, sentence: bad messages before a
    site is left out, and for how many rounds.
    noise: privacy noise as a multiple of the sensitivity (0: none). delta: of the guarantee.
    secure: sites in a group whose sum alone is seen (0: each site's statistics are seen by its neighbours).
    members: name -> :class:`Member`. coordinator: the member that aggregates for all and has no rows; "": gossip.
    Raises SettingsError where these contradict each other.

    >>> Plan(("a", "b"), 2).shape.numbers
    2012
    """

    classes: tuple[str, ...]
    width: int
    label: str = "label"
    id: str = ""
    encoder: str = ""
    features: int = 1000
    bandwidth: float = 1.0
    seed: int = 0
    rounds: int = 40
    steps: int = 10
    rate: float = 6.0
    decay: float = 1e-4
    warm: int = 5
    aggregate: str = "nearest"
    limit: float = 1000.0
    stale: int = 2
    strikes: int = 3
    sentence: int = 20
    noise: float = 0.0
    delta: float = 1e-5
    secure: int = 0
    coordinator: str = ""
    members: Mapping[str, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rule(self.aggregate)
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise SettingsError(f"the plan has the classes {list(self.classes)}; expected at least 2, each once")
        for name in ("width", "rounds", "steps"):
            if getattr(self, name) < 1:
                raise SettingsError(f"the plan's {name} is {getattr(self, name)}; expected at least 1")
        if self.features < 0 or self.noise < 0 or self.rate <= 0 or self.decay < 0 or self.limit <= 0:
            raise SettingsError("the plan's features, noise, rate, decay or limit is negative; use numbers from 0 on")
        if self.coordinator and self.coordinator not in self.members:
            raise SettingsError(f"the coordinator {self.coordinator!r} is no member; list its address under [members]")
        self._check_secure()

    def _check_secure(self) -> None:
        if not self.secure:
            return
        names = self.learners
        if self.secure < 3:
            raise SettingsError(
                f"secure = {self.secure}: in a group of two, each knows the other's; expected at least 3"
            )
        if names and len(names) < self.secure:
            raise SettingsError(
                f"secure = {self.secure} but {len(names)} sites have rows; take smaller groups or add sites"
            )
        missing = [name for name in names if not self.members[name].key]
        if missing:
            raise SettingsError(
                f"secure needs every site's key; {missing[0]} has none: run 'labelwright sites key' there"
            )

    @property
    def learners(self) -> list[str]:
        """Names of the sites with rows, sorted."""
        return sorted(name for name in self.members if name != self.coordinator)

    @property
    def shape(self) -> Shape:
        """Of the statistics."""
        return Shape(self.make_features().columns, len(self.classes))

    def make_features(self) -> Features:
        """The features that all sites share."""
        return Features(self.width, self.features, self.bandwidth, self.seed)

    @cached_property
    def digest(self) -> str:
        """sha256 of all that must be the same everywhere (addresses may differ: a site may reach another by another way)."""
        told = asdict(self)
        told["members"] = {name: member.key for name, member in self.members.items()}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def epsilon(self) -> float:
        """Of the (epsilon, delta) guarantee per row after all rounds; infinite without noise."""
        return epsilon(self.noise, releases(self.rounds, self.steps), self.delta)

    def neighbours(self, name: str) -> dict[str, Member]:
        """Whom a member exchanges with. Raises SettingsError when it is not in the plan."""
        if name not in self.members:
            raise SettingsError(f"there is no site {name!r} in the plan; its members are {', '.join(self.members)}")
        if self.coordinator and name != self.coordinator:
            return {self.coordinator: self.members[self.coordinator]}
        return {other: member for other, member in self.members.items() if other != name}

    def with_members(self, members: Mapping[str, Member], **changes: Any) -> Plan:
        """A copy with these members and changes."""
        return replace(self, members=dict(members), **changes)

    def to_toml(self) -> str:
        """As :meth:`read` reads it.

        >>> Plan.from_toml(Plan(("a", "b"), 2).to_toml()) == Plan(("a", "b"), 2)
        True
        """
        lines = []
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != "members":
                lines.append(f"{one.name} = {json.dumps(list(value) if isinstance(value, tuple) else value)}")
        for name, member in self.members.items():
            lines += ["", f"[members.{json.dumps(name)}]", f"address = {json.dumps(member.address)}"]
            lines += [f"key = {json.dumps(member.key)}"] if member.key else []
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_toml(text: str) -> Plan:
        """Raises SettingsError for a word it does not know, a missing one, or a value of another kind."""
        told = tables_of(text, "the plan")
        known = {one.name: one for one in fields(Plan)}
        strange = sorted(set(told) - set(known))
        if strange or not {"classes", "width"} <= set(told):
            wrong = f"the unknown word {strange[0]!r}" if strange else "no classes or no width"
            raise SettingsError(f"the plan has {wrong}; make one with 'labelwright sites plan'")
        try:
            members = {str(name): Member(**one) for name, one in told.pop("members", {}).items()}
        except (TypeError, AttributeError) as error:
            raise SettingsError("a member of the plan has other words than address and key; mend it") from error
        default = Plan(("a", "b"), 1)
        for name, value in told.items():
            like = getattr(default, name)
            if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
                told[name] = float(value)
            elif name == "classes":
                told[name] = tuple(str(one) for one in value) if isinstance(value, list) else ()
            elif type(value) is not type(like):
                raise SettingsError(f"the plan's {name} is {value!r}; expected something like {like!r}")
        return Plan(**told, members=members)

    @staticmethod
    def read(path: Path) -> Plan:
        """The plan in a file, or in a folder's ``plan.toml``. Raises SettingsError when it cannot be read."""
        file = path / PLAN if path.is_dir() else path
        try:
            return Plan.from_toml(file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"the plan {file} cannot be read ({error}); make one with 'labelwright sites plan'"
            ) from error
