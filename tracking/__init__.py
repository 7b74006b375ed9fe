"""Follow circuits through training: when each component forms, and what takes over from what."""

import lazy_loader

# Names are looked up when first used, so that `import tracking` loads neither torch nor TransformerLens.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

del lazy_loader
