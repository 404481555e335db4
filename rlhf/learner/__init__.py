"""The role that turns batches into weight updates."""
