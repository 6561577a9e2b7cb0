"""One room a layer: the equation, the forward pass, the backward pass, and the constructor that packs them."""
