"""Find the circuit behind a behaviour of one transformer, and judge it."""

import lazy_loader

# Names are looked up when first used, so that `import circuits` loads neither torch nor TransformerLens.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

del lazy_loader
