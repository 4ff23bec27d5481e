"""Synthetic world, dataset loaders, augmentation, losses and the training loop; inference never imports this."""
