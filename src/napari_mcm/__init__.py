"""Fine-tune patch encoders for whole-slide images by masked context modelling."""

__version__ = "0.1.0"
