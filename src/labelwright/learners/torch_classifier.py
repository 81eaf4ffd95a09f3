"""Networks behind scikit-learn's face. Needs torch (the extra ``torch``); torch is imported when a network is made."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from labelwright.errors import SettingsError, SourceError
from labelwright.learners.checks import check_settings
from labelwright.learners.labels import checked_trust, labels_like
from labelwright.learners.shapes import check_rows, check_shares, checked_weights, numbers_of, shape_of
from labelwright.learners.watch import Watch, held_out
from labelwright.types import NO_LABEL, Floats, Ints

if TYPE_CHECKING:
    from labelwright.learners.checkpoint import Checkpoint
    from labelwright.learners.objectives import Method, Objective
    from labelwright.learners.training import Inputs, Recipe, Trainer


class TorchClassifier(ClassifierMixin, BaseEstimator):
    """A neural network as a scikit-learn classifier.

    X: (n, d) numbers; pictures as (n, height, width[, channels]) or flattened with ``image_shape``, bytes 0..255 or
    floats. y: (n,) labels of any kind.

    network: "auto" (compact for pictures, mlp for vectors), compact, compact-small, resnet20, resnet44, vgg6, cnn12, mlp
    or expert. image_shape: (height, width, channels) of flattened rows. epochs, batch_size. learning_rate: peak of
    ``fit``; later_rate, later_epochs: of each ``partial_fit`` after the first. momentum, nesterov, weight_decay: of SGD.
    augment: words joined by "+": flip, crop2, cutout8; "none". average: decay of averaged weights a step (0: none).
    looks, mirror: how many shifted looks at a picture are averaged to predict, each also mirrored.
    validation_fraction: of the rows as they are labelled, held out to choose the epoch; patience: epochs without a gain
    before training stops. keep: "last" epoch or the "best" on the held-out rows. device: auto, cpu, cuda.
    precision: auto (bfloat16 where the machine is quick at it), bfloat16 or float32. deterministic: only operations that
    repeat exactly. checkpoint: a file that survives a kill at any instant, mid-epoch too; ``fit`` on the same data goes
    on from it. checkpoint_seconds: between writes. progress: a bar on the terminal.
    on_epoch: called after every epoch with its number; training stops when it returns True. random_state: seed.
    method: how to learn from labels of which some are wrong, e.g. ``labelwright.baselines.coteaching.CoTeaching()``;
    cross-entropy when None.

    Fitted attributes: ``classes_``, ``n_features_in_``, ``history_`` (a dict an epoch when rows are held out),
    ``best_epoch_``, ``objective_`` (of the method in the last training).

    Source: methods section 9 (networks and rates); SGD as in the paper's section VI.

    >>> X = np.repeat([[0.0, 1.0], [1.0, 0.0]], 40, axis=0)
    >>> TorchClassifier(epochs=5, random_state=0).fit(X, np.repeat(["a", "b"], 40)).predict([[0.0, 1.0]]).tolist()
    ['a']
    """

    uses_all_cores = True
    """Fits one at a time are quicker than several at once: torch shares each out over the cores."""

    def __init__(
        self,
        network: str = "auto",
        *,
        image_shape: tuple[int, int, int] | None = None,
        epochs: int = 30,
        batch_size: int = 128,
        learning_rate: float = 0.05,
        later_rate: float = 0.02,
        later_epochs: int = 4,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 5e-4,
        augment: str = "none",
        average: float = 0.0,
        looks: int = 1,
        mirror: bool = False,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        keep: str = "last",
        device: str = "auto",
        precision: str = "auto",
        deterministic: bool = False,
        checkpoint: str | Path | None = None,
        checkpoint_seconds: float = 20.0,
        progress: bool = False,
        on_epoch: Callable[[int], Any] | None = None,
        random_state: Any = None,
        method: Method | None = None,
    ):
        self.network = network
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.later_rate = later_rate
        self.later_epochs = later_epochs
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.augment = augment
        self.average = average
        self.looks = looks
        self.mirror = mirror
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.keep = keep
        self.device = device
        self.precision = precision
        self.deterministic = deterministic
        self.checkpoint = checkpoint
        self.checkpoint_seconds = checkpoint_seconds
        self.progress = progress
        self.on_epoch = on_epoch
        self.random_state = random_state
        self.method = method

    # ------------------------------------------------------------ learning

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, trusted: Any = None) -> TorchClassifier:
        """Train a fresh network. sample_weight: (n,) of the rows.

        trusted: (n,) the true label where somebody vouches for it, else None or NaN; for methods that use some truth.
        """
        check_settings(self)
        X, y = self._checked(X, y, reset=True)
        sure, known = checked_trust(trusted, len(X))
        vouched = labels_like(known[sure], y)
        self._begin(X, np.unique(np.concatenate([y, vouched])))
        codes = np.full(len(X), NO_LABEL, np.int64)
        codes[sure] = self._codes(vouched)
        return self._train(X, self._codes(y), self._recipe(self.epochs, self.learning_rate), sample_weight, codes)

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None, *, target: Floats | None = None
    ) -> TorchClassifier:
        """Train on: the first call as ``fit``, later ones ``later_epochs`` at ``later_rate``, the schedule begun anew.

        classes: all labels there are, at the first call, when that lacks some. target: (n, K) shares of the classes
        instead of ``y`` (soft labels; rows sum to one).
        """
        check_settings(self)
        first = not hasattr(self, "trainer_")
        if not first:
            if classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
                raise ValueError(
                    f"classes={classes!r} are not those of the first call, {self.classes_.tolist()}; leave them out"
                )
            check_rows(X, self._image, self._width, flat=self.image_shape is not None)
        X, y = self._checked(X, y, reset=first)
        known = self.classes_ if not first else np.unique(y if classes is None else np.asarray(classes))
        if target is not None:
            check_shares(target, len(X), len(known))
        if first:
            self._begin(X, known)
        epochs, rate = (self.epochs, self.learning_rate) if first else (self.later_epochs, self.later_rate)
        wanted = self._codes(y) if target is None else np.asarray(target, np.float32)
        return self._train(X, wanted, self._recipe(epochs, rate), sample_weight)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(self, X, y, reset=reset, dtype=None, allow_nd=True, ensure_all_finite=True)
        with warnings.catch_warnings():  # a batch may well hold few rows of many classes
            warnings.filterwarnings("ignore", message="The number of unique classes")
            check_classification_targets(y)
        return numbers_of(X), y

    def _begin(self, X: Any, classes: Any) -> None:
        if len(classes) < 2:
            raise ValueError(f"TorchClassifier needs at least two classes; got {len(classes)} class")
        self.classes_ = classes
        self._seed = self._first_seed()
        self._stage = 0
        self.history_: list[dict[str, float]] = []
        self.best_epoch_: int | None = None
        from labelwright.learners.networks import VECTOR_NETWORKS

        shape = shape_of(X, self.image_shape)
        self._width = int(np.prod(X.shape[1:]))
        self._image = None if self.network in VECTOR_NETWORKS else shape
        values = self._values(X)
        flat = values.reshape(-1, values.shape[-1]) if self._image else values
        some = flat[:: max(1, len(flat) // 200_000)].astype(np.float64)
        deviation = some.std(axis=0)
        varied = deviation > np.maximum(1e-7 * np.abs(some.mean(axis=0)), 1e-30)
        self._scale = (1 / np.where(varied, deviation, 1.0)).astype(np.float32)
        self._shift = (-some.mean(axis=0) * self._scale).astype(np.float32)
        self.trainer_ = self._trainer()

    def _first_seed(self) -> int:
        """Of ``random_state``; without one, that of the checkpoint, so that a run that nobody gave a seed goes on, too."""
        state = self.random_state
        if state is None and self.checkpoint is not None:
            from labelwright.learners.checkpoint import Checkpoint

            begun = Checkpoint.seed_in(Path(self.checkpoint).expanduser())
            if begun is not None:
                return begun
        if isinstance(state, np.random.RandomState):
            state = state.randint(2**31)
        return int(np.random.default_rng(state).integers(2**62))

    def _values(self, X: Any) -> Any:
        """(n, height, width, channels) or (n, d), contiguous."""
        return X.reshape(len(X), *self._image) if self._image else X.reshape(len(X), -1)

    def _codes(self, y: Any) -> Ints:
        codes = np.searchsorted(self.classes_, y)
        codes = np.minimum(codes, len(self.classes_) - 1)
        unknown = np.asarray(self.classes_)[codes] != y
        if unknown.any():
            raise ValueError(
                f"labels {np.unique(np.asarray(y)[unknown])[:5].tolist()} are none of the classes "
                f"{self.classes_[:10].tolist()}; name all at the first partial_fit"
            )
        return codes.astype(np.int64)

    def _recipe(self, epochs: int, rate: float) -> Recipe:
        from labelwright.learners.augment import Augment
        from labelwright.learners.training import Recipe

        return Recipe(
            epochs=epochs,
            batch_size=self.batch_size,
            rate=rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            average=self.average,
            augment=Augment.named(self.augment) if self._image else Augment(),
        )

    def _trainer(self) -> Trainer:
        import torch

        from labelwright.learners.devices import find_device, find_precision
        from labelwright.learners.networks import make_network
        from labelwright.learners.training import Trainer

        device = find_device(self.device)
        name = ("compact" if self._image else "mlp") if self.network == "auto" else self.network
        with torch.random.fork_rng([]):
            torch.manual_seed(self._seed)
            network = self._method.network(
                lambda: make_network(name, shape=self._image, width=self._width, classes=len(self.classes_)),
                len(self.classes_),
            )
        return Trainer(
            network, device=device, precision=find_precision(self.precision, device, self._image is not None)
        )

    def _inputs(self, X: Any) -> Inputs:
        import torch

        from labelwright.learners.devices import resident
        from labelwright.learners.training import Inputs

        home = self.trainer_.device
        values = resident(np.ascontiguousarray(self._values(X)), home)
        return Inputs(values, torch.tensor(self._scale).to(home), torch.tensor(self._shift).to(home), home)

    def _train(
        self, X: Any, wanted: Any, recipe: Recipe, sample_weight: Any, trusted: Ints | None = None
    ) -> TorchClassifier:
        import torch

        from labelwright.learners.devices import only_deterministic

        if sample_weight is not None:
            sample_weight = checked_weights(sample_weight, len(X))
        seed = int(np.random.default_rng([self._seed, self._stage]).integers(2**62))
        held = held_out(len(X), self.validation_fraction, seed, trusted)
        rows = np.setdiff1d(np.arange(len(X)), held) if len(held) else slice(None)
        target = torch.from_numpy(np.ascontiguousarray(wanted[rows])).to(self.trainer_.device)
        weight = None if sample_weight is None else torch.from_numpy(sample_weight[rows]).to(self.trainer_.device)
        watch = self._watch(X[held], wanted[held]) if len(held) else None
        trusted = np.full(len(X), NO_LABEL, np.int64) if trusted is None else trusted
        self.objective_ = self._objective(
            X[rows], wanted[rows], trusted[rows], recipe, seed, weighted=weight is not None
        )
        with only_deterministic(self.deterministic), self._bar(recipe, len(target)) as tell:
            self.trainer_.run(
                self._inputs(X[rows]),
                target,
                recipe,
                seed=seed,
                weight=weight,
                objective=self.objective_,
                checkpoint=self._checkpoint(X, wanted, trusted, recipe, sample_weight),
                beside=watch,
                tell=tell,
                after_epoch=self._ended(watch),
            )
        if watch is not None and self.keep == "best":
            watch.restore(self.trainer_)
        self._stage += 1
        return self

    @property
    def _method(self) -> Method:
        from labelwright.learners.objectives import PLAIN, Method

        if self.method is None:
            return PLAIN
        if not isinstance(self.method, Method):
            raise SettingsError(
                f"method={self.method!r} is no method; expected an object such as labelwright.baselines.gce.GCE()"
            )
        return self.method

    def _objective(self, X: Any, wanted: Any, trusted: Ints, recipe: Recipe, seed: int, *, weighted: bool) -> Objective:
        from labelwright.learners.methods import task

        name = type(self.method).__name__
        if self.method is not None and wanted.ndim == 2:
            raise SettingsError(f"{name} learns from labels, not from shares; leave target out")
        if self.method is not None and weighted:
            raise SettingsError(f"{name} weighs rows by itself; leave sample_weight out")
        return self._method.begin(task(self, X, wanted, trusted, recipe, seed))

    def _ended(self, watch: Watch | None) -> Callable[[int], bool] | None:
        """What is done after every epoch, or None."""
        told = [look for look in (watch, self.on_epoch) if look is not None]
        return (lambda epoch: any([bool(look(epoch)) for look in told])) if told else None

    def _watch(self, X: Any, wanted: Any) -> Watch:
        return Watch(self, self._inputs(X), wanted if wanted.ndim == 1 else wanted.argmax(axis=1))

    def _bar(self, recipe: Recipe, rows: int) -> Any:
        from labelwright.learners.devices import step_bar

        return step_bar(f"training {rows:,} rows", shown=self.progress)

    def _checkpoint(
        self, X: Any, wanted: Any, trusted: Ints, recipe: Recipe, weight: Floats | None
    ) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        from labelwright.learners.checkpoint import Checkpoint, token_of

        settings = (self._seed, self._stage, recipe, self.network, self._image, self._method, self.validation_fraction)
        begun = self.trainer_.weights()
        token = token_of((*settings, self.patience), X, wanted, trusted, *begun, *(() if weight is None else (weight,)))
        return Checkpoint(Path(self.checkpoint).expanduser(), token, self.checkpoint_seconds, self._seed)

    # ------------------------------------------------------------ judging

    def predict_proba(self, X: Any, *, mirror: bool | None = None) -> Floats:
        """(n, K) float64 probability of each class, in the order of ``classes_``. mirror: this once, in place of the setting."""
        check_is_fitted(self, "trainer_")
        check_rows(X, self._image, self._width, flat=self.image_shape is not None)
        X = validate_data(self, X, reset=False, dtype=None, allow_nd=True)
        proba = self.trainer_.proba(
            self._inputs(numbers_of(X)),
            looks=self.looks if self._image else 1,
            flip=self.mirror if mirror is None else mirror,
        )
        out = proba.numpy().astype(np.float64)
        return np.asarray(out / out.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> Any:
        """(n,) likeliest class."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    # ------------------------------------------------------------ saving

    def to_bytes(self) -> bytes:
        """The fitted network as a safetensors file: weights, averaged weights, settings, classes."""
        check_is_fitted(self, "trainer_")
        from labelwright.learners.saved import dumped

        return dumped(self)

    @staticmethod
    def from_bytes(content: bytes, name: str = "the saved network", **settings: str) -> TorchClassifier:
        """What :meth:`to_bytes` made. settings: ``device`` and ``precision``, where not as saved. Raises SettingsError when it is
        damaged or of another kind."""
        from labelwright.learners.saved import loaded

        return loaded(content, name, **settings)

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_bytes` to a file, whole or not at all. Raises SourceError when it cannot be written."""
        from labelwright.learners.tensors import write_whole

        try:
            write_whole(Path(path), self.to_bytes())
        except OSError as error:
            raise SourceError(f"{path} cannot be written ({error.strerror}); save elsewhere") from error

    @staticmethod
    def load(path: str | Path) -> TorchClassifier:
        """What :meth:`save` wrote. Raises SourceError when it cannot be read, SettingsError when it is something else."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise SourceError(f"{path} cannot be read ({error.strerror}); check the path") from error
        return TorchClassifier.from_bytes(content, str(path))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        return tags
