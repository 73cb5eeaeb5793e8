"""The service around the federation: broker, links, store, artifacts. The one room that does I/O."""
