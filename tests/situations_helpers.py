"What several tests of the wing `situations` share"
import numpy as np
from PIL import Image

def he_params(n):
    "Weights of a 6n+2-layer network, by hand from the paper's table: convolutions, 2 a normalised channel, classifier"
    conv = lambda a, b: 9*a*b + 2*b
    stage = lambda a, b: conv(a, b) + conv(b, b) + (n-1)*2*conv(b, b)
    return conv(3, 16) + 2*n*conv(16, 16) + stage(16, 32) + stage(32, 64) + 65*10

def image_folder(root, sizes=(4, 4)):
    rng = np.random.default_rng(1)
    for part,n,size in [('train', 6, sizes[0]), ('test', 3, sizes[1])]:
        for c in ('ant', 'bee'):
            (root/part/c).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(root/part/c/f'{i}_{c}.png')
    return root
