"""The only code that changes the layers of a viewer."""
