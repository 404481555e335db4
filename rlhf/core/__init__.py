"""The vocabulary of the project: types, protocols, config, components, metrics. No torch at run time."""
