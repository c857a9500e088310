"""Write stateful agents in Python; run them alone, in tests, or on a Tenure cluster."""
