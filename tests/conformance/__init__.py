"""What every engine behind ``hasys.store.port`` must do, whichever it is. How to add one: docs/development.md."""
