"""The platform's wire protocol: its messages, and the async client that speaks it."""
