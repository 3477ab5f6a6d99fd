"""The layers of the plugin: the only package that changes the viewer's layers."""
