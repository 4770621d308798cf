"""What others write for the same job, to be measured beside it, in environments of its own."""
