"""The layers that methods put into models; one module per kind of layer."""
