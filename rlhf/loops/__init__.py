"""The four loops and the pipeline that chains them."""
