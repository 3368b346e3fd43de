"""`Callback`: the methods that `fit`, `evaluate` and `predict` call."""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]


class Callback:
    """What `fit` calls: override the methods that matter. `self.model` and `self.params` are set before.

    Setting `self.model.stop_training` to True ends the training after the batch or the epoch.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Any) -> None:
        """Take the model that is trained.

        Parameters
        ----------
        model : Model or Sequential
            Kept as `self.model`.
        """
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Take what is known of the training.

        Parameters
        ----------
        params : dict
            The epochs, steps and verbose of `fit`, kept as `self.params`.
        """
        self.params = params

    def on_train_begin(self, logs: Values | None = None) -> None:
        """Called before the first epoch.

        Parameters
        ----------
        logs : dict, optional
            Empty.
        """

    def on_train_end(self, logs: Values | None = None) -> None:
        """Called behind the last epoch.

        Parameters
        ----------
        logs : dict, optional
            The values of the last epoch.
        """

    def on_epoch_begin(self, epoch: int, logs: Values | None = None) -> None:
        """Called before every epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        logs : dict, optional
            Empty.
        """

    def on_epoch_end(self, epoch: int, logs: Values | None = None) -> None:
        """Called behind every epoch and its validation.

        Parameters
        ----------
        epoch : int
            From 0.
        logs : dict, optional
            The values of the epoch, as in the history.
        """

    def on_train_batch_begin(self, batch: int, logs: Values | None = None) -> None:
        """Called before every step.

        Parameters
        ----------
        batch : int
            From 0 in every epoch.
        logs : dict, optional
            Empty.
        """

    def on_train_batch_end(self, batch: int, logs: Values | None = None) -> None:
        """Called behind every step.

        Parameters
        ----------
        batch : int
            From 0 in every epoch.
        logs : dict, optional
            The means of the epoch so far.
        """

    def on_test_begin(self, logs: Values | None = None) -> None:
        """Called before a validation or an `evaluate`.

        Parameters
        ----------
        logs : dict, optional
            Empty.
        """

    def on_test_end(self, logs: Values | None = None) -> None:
        """Called behind a validation or an `evaluate`.

        Parameters
        ----------
        logs : dict, optional
            What was measured.
        """

    def on_test_batch_begin(self, batch: int, logs: Values | None = None) -> None:
        """Called before a batch is measured.

        Parameters
        ----------
        batch : int
            From 0.
        logs : dict, optional
            Empty.
        """

    def on_test_batch_end(self, batch: int, logs: Values | None = None) -> None:
        """Called when a batch has been measured.

        Parameters
        ----------
        batch : int
            From 0.
        logs : dict, optional
            The means so far.
        """

    def on_predict_begin(self, logs: Values | None = None) -> None:
        """Called before a `predict`.

        Parameters
        ----------
        logs : dict, optional
            Empty.
        """

    def on_predict_end(self, logs: Values | None = None) -> None:
        """Called behind a `predict`.

        Parameters
        ----------
        logs : dict, optional
            Empty.
        """

    def on_predict_batch_begin(self, batch: int, logs: Values | None = None) -> None:
        """Called before a batch is predicted.

        Parameters
        ----------
        batch : int
            From 0.
        logs : dict, optional
            Empty.
        """

    def on_predict_batch_end(self, batch: int, logs: Values | None = None) -> None:
        """Called when a batch has been predicted.

        Parameters
        ----------
        batch : int
            From 0.
        logs : dict, optional
            An array, or a list of them, under 'outputs'.
        """
