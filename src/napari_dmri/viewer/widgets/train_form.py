"""What the Train dock is made of: the method, its settings, and what shows a training live."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QPushButton, QSpinBox

from napari_dmri.viewer import preferences
from napari_dmri.viewer.training import TrainOptions
from napari_dmri.viewer.widgets._parts import Dock, StatusLine
from napari_dmri.viewer.widgets.train_plots import CurvePlot, SlicePlot

__all__ = ["TrainForm"]

BLOCKS = (1, 2, 3, 6, 7, 9, 11)
ORDERS = (2, 4, 6, 8)


class TrainForm(Dock):
    """Hold the fields of the Train dock; what they do is the dock's."""

    title = "Train"

    def _build_method(self) -> None:
        from napari_dmri.harmonize import METHODS

        self.method = QComboBox()
        for name in ("shresnet", "golkov", "linear-rish"):
            self.method.addItem(METHODS[name].label, name)
        self.row("M&ethod", self.method, "What is trained.")
        self.method_line = self.line()

    def _build_settings(self) -> None:
        self.order = QComboBox()
        self.order.addItem("auto", None)
        for order in ORDERS:
            self.order.addItem(str(order), order)
        self.row("&Order", self.order, "SH order; auto takes the largest that all scans support.",
                 self.settings)  # fmt: skip
        self.smooth = QDoubleSpinBox()
        self.smooth.setDecimals(5)
        self.smooth.setRange(0, 1)
        self.smooth.setSingleStep(0.001)
        self.smooth.setValue(TrainOptions().smooth)
        self.row("Smoothin&g λ", self.smooth, "Laplace-Beltrami smoothing of the SH fit.",
                 self.settings)  # fmt: skip
        self.mode = QComboBox()
        self.mode.addItem("paper (3 × 3 × 3)", "paper")
        self.mode.addItem("tiled (large blocks)", "tiled")
        self.row("Mo&de", self.mode, "How neighbourhoods are cut; a model runs in its own mode.",
                 self.settings)  # fmt: skip
        self.blocks = QComboBox()
        for count in BLOCKS:
            self.blocks.addItem(str(count), count)
        self.blocks.setCurrentIndex(BLOCKS.index(TrainOptions().blocks))
        self.row("&Blocks", self.blocks, "Residual blocks, one after the other.", self.settings)
        self.loss = QComboBox()
        self.loss.addItem("the method's own", None)
        self.loss.addItem("signal alone (the papers')", 0.0)
        self.loss.addItem("signal and energy of order 2", 1.0)
        self.row("&Loss", self.loss, "What is minimised. The signal's error alone makes fODFs and "
                 "FA flatter than they are;\nSHResNet's own loss has the energy of order 2 beside "
                 "it, Golkov's has not.",
                 self.settings)  # fmt: skip
        self.registration = QComboBox()
        self.registration.addItem("rigid", "rigid")
        self.registration.addItem("affine", "affine")
        self.registration.addItem("always (rigid)", "always")
        self.row("Al&ignment", self.registration, "How the two scans of a pair on different grids "
                 "are brought together;\nalways aligns those on one grid too, which are taken as "
                 "they lie else.",
                 self.settings)  # fmt: skip
        self.epochs = QSpinBox()
        self.epochs.setRange(1, 1000)
        self.epochs.setValue(TrainOptions().epochs)
        self.row("Epoch&s at most", self.epochs, "Of the second stage (SGD), after 5 epochs of "
                 "Adam; it ends\nafter 10 epochs without a better validation loss.",
                 self.settings)  # fmt: skip
        self.seed = QSpinBox()
        self.seed.setRange(0, 999_999)
        self.row("See&d", self.seed, "Of the initial weights and the order of samples.",
                 self.settings)  # fmt: skip

    def _build_live(self) -> None:
        self.pause = QPushButton("&Pause")
        self.pause.setToolTip("Wait between two steps; press again to go on.")
        self.finish = QPushButton("&Finish now")
        self.finish.setToolTip("End here and keep the best weights so far.")
        self.anew = QPushButton("Begin a&new")
        self.anew.setToolTip("Forget the training that was stopped, and begin from the start.")
        steering = QHBoxLayout()
        for button in (self.pause, self.finish, self.anew):
            steering.addWidget(button)
        self.extra.addLayout(steering)
        self.curves = CurvePlot(self.viewer)
        self.slice = SlicePlot(self.viewer)
        self.extra.addWidget(self.curves)
        self.extra.addWidget(self.slice)
        self.save_button = QPushButton("Save &model…")
        self.save_button.setToolTip("Write the trained model and its card.")
        self.use_button = QPushButton("Use in &Harmonize")
        self.use_button.setToolTip("Choose the model in the Harmonize dock.")
        after = QHBoxLayout()
        after.addWidget(self.save_button)
        after.addWidget(self.use_button)
        self.extra.addLayout(after)
        self.save_line = StatusLine()
        self.extra.addWidget(self.save_line)
        self.save_line.hide()
        self.curves.hide()
        self.slice.hide()

    @property
    def options(self) -> TrainOptions:
        """What is set."""
        return TrainOptions(
            method=self.method.currentData(),
            order=self.order.currentData(),
            smooth=self.smooth.value(),
            mode=self.mode.currentData(),
            blocks=self.blocks.currentData(),
            epochs=self.epochs.value(),
            seed=self.seed.value(),
            energy=self.loss.currentData(),
            registration=self.registration.currentData(),
            device=preferences.device(),
        )

    def show_settings(self) -> None:
        """Show the settings that the method has, and what it does."""
        from napari_dmri.harmonize import METHODS

        name = self.method.currentData()
        method = METHODS[name]
        self.method_line.say(f"{method.summary} {method.reference}.")
        for field, methods in (
            (self.mode, ("shresnet",)),
            (self.blocks, ("shresnet",)),
            (self.loss, ("shresnet", "golkov")),
            (self.registration, ("shresnet", "golkov")),
            (self.epochs, ("shresnet", "golkov")),
            (self.seed, ("shresnet", "golkov")),
        ):
            self.settings.setRowVisible(field, name in methods)
