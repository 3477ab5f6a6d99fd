"""The dock *Similarity*: click on a patch to map where the tissue is similar."""
