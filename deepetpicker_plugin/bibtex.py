"""What to cite; Scipion reads this docstring.

@article{Liu2024,
  author = {Liu, Guole and Niu, Tongxin and Qiu, Mengxuan and Zhu, Yun and Sun, Fei and Yang, Ge},
  title = {DeepETPicker: Fast and accurate 3D particle picking for cryo-electron tomography using weakly supervised
           deep learning},
  journal = {Nature Communications},
  volume = {15},
  pages = {2090},
  year = {2024},
  doi = {10.1038/s41467-024-46041-0}
}
"""
