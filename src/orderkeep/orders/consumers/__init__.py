"""One module for each queue that the order service reads, named as the queue is."""
