"""Use cases. They are asynchronous, receive their services in a `RunContext`, and neither print nor parse options."""
