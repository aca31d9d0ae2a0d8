"""SciServer Compute: batch jobs in containers of a SciServer site, in the user's name."""
