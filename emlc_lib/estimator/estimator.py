"""The method in scikit-learn's manner, for a user's own images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ..data.experiment_data import on_device
from ..data.spec import Constants
from ..runtime.checkpoint import CheckpointError, read_checkpoint, restore, save_checkpoint
from ..runtime.parameters import ConfigError, readable
from ..training.config import from_values
from ..training.correction import correction_frame, corrections, issues_frame
from ..training.evaluation import predict
from ..training.presets import usable_device
from ..training.start import placed
from ..training.trainer import train
from .checkpoint import claim
from .checks import warn_of_copies, warn_of_no_correction
from .features import channels_for, empty_networks, own_spec, starting_features
from .parameters import settle
from .sets import check_labels, codes, experiment_data, pair
from .sources import as_images

FORMAT = "emlc_lib.EMLCClassifier 1"


class EMLCClassifier(ClassifierMixin, BaseEstimator):
    """Learns from many images with partly wrong labels and a few with verified ones, and corrects the wrong ones.

    The student (:meth:`predict`) learns from the labels that the teacher (:meth:`correct_labels`) corrects; the
    teacher is trained by the student's loss on the clean set. ``fit`` takes two sets, so scikit-learn's tools that
    call ``fit(X, y)`` do not apply.

    Args:
        method: ``emlc``, the paper's, or ``emlc_consistent``, an extension whose teacher learns from the noisy
            images without their labels, too (:mod:`emlc_lib.methods.emlc_consistent`), in 1.2 times the time. On
            photographs with people's labels, from a SimCLR start, its rank found clearly more wrong ones than
            EMLC's and cleanlab's (``15_which_information``): choose it there.
        model: ``small_cnn`` (about 8x8 pixels), ``resnet_narrow``, ``resnet_small`` (for CPUs), ``resnet34``,
            ``resnet50`` (about 32x32), ``torchvision:NAME`` with NAME one of
            :data:`emlc_lib.estimator.features.TORCHVISION` (about 224x224); ``auto`` is ``small_cnn`` up to 12
            pixels, else ``resnet_narrow``.
        start: the first weights of the feature extractors. ``random``; ``pretrain``: SimCLR on the images of both
            sets, without labels; ``shipped``: CIFAR-10's SimCLR weights of ``resnet_narrow`` and ``resnet_small``,
            which come with this package; ``published``: torchvision's, downloaded on first use; or the path of a
            safetensors file that ``04_pretrain_simclr`` wrote. ``auto`` is ``published`` for torchvision's models,
            else ``random``.
        image_size: side in pixels to which all images are resized; None keeps the size of arrays, and takes 32 for
            files (224 with torchvision's models).
        classes: all labels that may occur, strings or integers; None takes those of the noisy set.
        epochs: passes over the noisy set; None takes 10, or more on small sets (600 steps).
        patience: stop when the student's loss on the clean set has not fallen for so many epochs; None never does.
        batch_size, clean_batch_size: None takes 64 and 32, or all images where there are fewer.
        lr, teacher_lr: learning rates of student and teacher, which fall to zero as a cosine.
        k: student steps per teacher update.
        start_steps: steps of supervised training on the clean set before everything else.
        pretrain_epochs: of ``start="pretrain"``.
        flip: whether mirror images are of the same class; not so for digits or text.
        autoaugment: whether the clean batches are augmented with CIFAR's AutoAugment policy (colour images only).
        seed: of every random choice; the same seed on the same machine gives the same bits on a CPU.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        checkpoint: a folder, rewritten after every epoch, from which an interrupted ``fit`` goes on, on a CPU
            to the same bits; None keeps none.
        options: further parameters of :class:`emlc_lib.Config`, by name. Its ``corruption`` of half of the clean
            labels is ``random`` here; the paper's is ``adversarial``.
        verbose: whether to show progress on stderr.

    Attributes:
        classes_: (C,) the classes, sorted.
        student_, teacher_: the networks, in evaluation mode: the student of the epoch that does best on the clean
            set, and the teacher of the last one.
        history_: data frame with a row per epoch: losses, the student's accuracy on the clean set, ``kept`` (share
            of given labels that the teacher kept), ``gate`` (mean weight of the given labels).
        best_epoch_: the student's epoch, from 1.
        config_: the configuration of the training.
        image_size_, channels_: of the images as the networks see them.
    """

    def __init__(
        self,
        *,
        method="emlc",
        model="auto",
        start="auto",
        image_size=None,
        classes=None,
        epochs=None,
        patience=None,
        batch_size=None,
        clean_batch_size=None,
        lr=0.02,
        teacher_lr=0.02,
        k=1,
        start_steps=200,
        pretrain_epochs=40,
        flip=False,
        autoaugment=False,
        seed=0,
        device="auto",
        checkpoint=None,
        options=None,
        verbose=False,
    ):
        given = dict(locals())
        vars(self).update({name: given[name] for name in self._get_param_names()})

    def fit(self, noisy: Any, clean: Any) -> EMLCClassifier:
        """Trains on images with given labels and on images with verified ones.

        Args:
            noisy: ``(images, labels)`` arrays, a torch ``Dataset`` of (image, label), the path of a folder with a
                subfolder per class, or :class:`emlc_lib.estimator.images.Images`; see
                :func:`emlc_lib.estimator.sources.as_images`.
            clean: the same, with verified labels, at least one of every class. If the noisy images are files, also
                the path of a CSV file of path,label. Files that are in both sets are taken out of the noisy one;
                for other equal images there is one UserWarning, and they stay.

        Another UserWarning tells if no label was corrected, or all gates stayed near one half.

        Raises:
            ConfigError: a parameter of the constructor has a value that is not allowed.
            InputError: the images or labels cannot be used. Like ConfigError a ValueError, which begins with the
                parameter's name.
            CheckpointError: the checkpoint is damaged, or of other images, labels or parameters.
            FloatingPointError: a loss is not finite.
        """
        sets = pair(noisy, clean, self.classes)
        size, model, start, config = settle(self.get_params(deep=False), sets)
        channels = channels_for(model, start) or max(sets.noisy.channels, sets.clean.channels)
        if self.autoaugment and channels == 1:
            raise ConfigError("autoaugment: is for colour images")

        pixels = [images.pixels(size, channels, show=self.verbose) for images in (sets.noisy, sets.clean)]
        warn_of_copies(sets, *pixels)
        flip = bool(self.flip)
        spec = own_spec(model, start, pixels[0], flip=flip, autoaugment=self.autoaugment)
        data = experiment_data(sets, *pixels, spec, config.device)
        folder = claim(
            self.checkpoint, config, data, feature_extractor=model, first_weights=start, flip=flip,
            pretrain_epochs=self.pretrain_epochs,
        )  # fmt: skip
        features = starting_features(
            model, start, config, torch.cat(pixels) if start == "pretrain" else pixels[0], spec,
            epochs=self.pretrain_epochs, show=self.verbose, folder=folder and folder / "pretrain",
        )  # fmt: skip
        trained = train(config, data, folder=folder, show=self.verbose, patience=self.patience, features=features)

        # A copy: the teacher may share the student's features, and is that of the last epoch.
        student, teacher = copy.deepcopy(trained.method.reported), trained.method.teacher
        student.load_state_dict(trained.best_student)
        self._set(config, model, sets.classes, size, channels, spec.constants, student, teacher)
        # The true labels are unknown: what depends on them says nothing.
        blind = ["recovery_all", "recovery_wrong", "confirmed_wrong", "gate_right", "gate_wrong"]
        self.history_ = trained.epochs.drop(columns=blind)
        self.best_epoch_ = trained.best_epoch
        self._names = sets.noisy.names
        self._correction = self._correct(pixels[0], sets.noisy.labels)
        warn_of_no_correction(self._correction)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The student's probabilities, (n, C) float64; column c is for ``classes_[c]``, rows sum to one.

        Args:
            X: images in any form that :meth:`fit` takes, with or without labels; those of other sizes are resized.

        Raises:
            InputError: the images cannot be used.
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self, "classes_")
        pixels = as_images(X, "X", labelled=False).pixels(self.image_size_, self.channels_, show=self.verbose)
        logits = predict(self.student_, pixels, on_device(self._constants, self.config_.device))
        return logits.cpu().double().softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The student's classes, (n,); see :meth:`predict_proba`."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def correct_labels(self, noisy: Any = None) -> pd.DataFrame:
        """What the networks make of given labels: the teacher corrects them, both rank them.

        Args:
            noisy: images with labels in any form that :meth:`fit` takes; None takes the noisy set of :meth:`fit`.

        Returns:
            One row per image, in their order:

            * ``index`` (from 0), or ``path`` (relative to the folder) for files;
            * ``given_label``;
            * ``corrected_label``: the most probable class after the correction;
            * ``probability``: its probability, in [0, 1];
            * ``gate``: w, the weight of the given label, in (0, 1); Appendix D reads it as the probability that
              the given label is right;
            * ``rank``: from 1, the most suspicious given label, i.e. the one to which student and teacher, without
              the gate, give the least probability on average.

        Raises:
            InputError: the images cannot be used, or a label is none of the classes.
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
        """
        return correction_frame(*self._corrections(noisy))

    def suspects(self, noisy: Any = None) -> np.ndarray:
        """(n,) int64, places of the images in the table of :meth:`correct_labels`, most suspicious label first."""
        return np.argsort(self.correct_labels(noisy)["rank"].to_numpy())

    def label_issues(self, noisy: Any = None) -> pd.DataFrame:
        """The same verdicts as :meth:`correct_labels` as a table of cleanlab's, which its tools take; see
        :func:`emlc_lib.training.correction.issues_frame`."""
        return issues_frame(*self._corrections(noisy)[1:])

    def save(self, path: str | Path) -> None:
        """Writes everything to one safetensors file, atomically; parameters are JSON in its header."""
        check_is_fitted(self, "classes_")
        params = {n: v.item() if isinstance(v, np.generic) else v for n, v in self.get_params().items()}
        params |= {"classes": None if self.classes is None else self.classes_.tolist(), "start": str(self.start)}
        params |= {"checkpoint": self.checkpoint and str(self.checkpoint)}
        if self.options is not None:  # as the configuration has them: those given may be NumPy's
            params["options"] = {name: getattr(self.config_, name) for name in self.options}
        metadata = {
            "format": FORMAT,
            "params": params,
            "config": self.config_.model_dump(),
            "model": self._model,
            "classes": self.classes_.tolist(),
            "classes_type": self.classes_.dtype.str,
            "image_size": self.image_size_,
            "channels": self.channels_,
            "constants": self._constants,
            "history": self.history_.to_dict("list"),
            "best_epoch": self.best_epoch_,
            "names": self._names,
        }
        networks = {"student": self.student_, "teacher": self.teacher_}
        save_checkpoint(Path(path), networks, {}, dict(self._correction), metadata)

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None) -> EMLCClassifier:
        """What :meth:`save` wrote; on the same device it predicts the same bits.

        Args:
            path: the file.
            device: None takes the one that was asked for when it was constructed.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: the file is damaged, or of another kind.
            ConfigError: the device cannot be used here.
        """
        tensors, saved = read_checkpoint(Path(path))
        if saved.get("format") != FORMAT:
            raise CheckpointError(f"{path} was not written by EMLCClassifier.save of this version")
        self = cls(**saved["params"])
        self.device = self.device if device is None else device
        values = saved["config"] | {"device": usable_device(self.device)}
        if not values["device"].startswith("cuda"):  # how it was trained; predictions are in float32 anyway
            values |= {"precision": "float32"} if values["precision"] == "tf32" else {}
            values |= {"cuda_graph": False} if "cuda_graph" in values else {}
        try:
            config = from_values(values)
        except ValidationError as error:
            raise CheckpointError(f"{path} was written by another version: {readable(error)}") from None
        classes = np.array(saved["classes"], dtype=saved["classes_type"])
        networks = empty_networks(saved["model"], saved["channels"], len(classes), config)
        restore(tensors, dict(zip(("student", "teacher"), networks, strict=True)), {})
        student, teacher = (placed(network, config) for network in networks)
        size, channels = saved["image_size"], saved["channels"]
        constants = Constants(*map(tuple, saved["constants"]))
        self._set(config, saved["model"], classes, size, channels, constants, student, teacher)
        self.history_, self.best_epoch_ = pd.DataFrame(saved["history"]), saved["best_epoch"]
        self._names = saved["names"]
        self._correction = {name[6:]: value for name, value in tensors.items() if name.startswith("extra/")}
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _set(self, config, model, classes, size, channels, constants, student, teacher) -> None:
        self.config_, self._model, self.classes_ = config, model, classes
        self.image_size_, self.channels_, self._constants = size, channels, constants
        self.student_, self.teacher_ = student.eval(), teacher.eval()

    def _corrections(self, noisy: Any) -> tuple[list[int] | list[str], np.ndarray, dict[str, Tensor]]:
        check_is_fitted(self, "classes_")
        if noisy is None:
            return self._names, self.classes_, self._correction
        images = as_images(noisy, "noisy", labelled=True)
        check_labels(images, self.classes_)
        pixels = images.pixels(self.image_size_, self.channels_, show=self.verbose)
        return images.names, self.classes_, self._correct(pixels, images.labels)

    def _correct(self, pixels: Tensor, labels: np.ndarray) -> dict[str, Tensor]:
        given, device = codes(labels, self.classes_), self.config_.device
        return corrections(self.student_, self.teacher_, pixels, given, self._constants, device)
