"""A user's SciServer account: where its services are, logging in, calls in the user's name."""
