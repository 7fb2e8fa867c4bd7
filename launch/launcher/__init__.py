"""The launcher: starts runs here or on machines elsewhere, and keeps them going. Needs Python alone, neither JAX nor a package."""
