"""The recipe of the demo model: speech from Debian's flite, small networks in the released layout, one directory out.

python -m training texts  --out DIR     # where the packages are: fortunes, wordnet-base, wamerican-small, flite
python -m training corpus --out DIR     # and the other stages, on the GPU machine; see README.md
"""
