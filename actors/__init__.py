"""The Ray side: actors that hold streams, pack, dispatch and close, and the jobs made of them."""
