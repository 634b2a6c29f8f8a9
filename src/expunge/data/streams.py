"""tmp"""
import numpy as np
from torch.utils.data import Dataset, Sampler
def order(lengths, seed, cycle, window):
    rng = np.random.default_rng([seed, cycle]); p = rng.permutation(len(lengths)).tolist()
    out=[]
    for b in range(0,len(p),4*window):
        c=sorted(p[b:b+4*window], key=lambda i: lengths[i]); out += [c[j:j+window] for j in range(0,len(c),window)]
    full=[c for c in out if len(c)==window]; rest=[c for c in out if len(c)<window]
    rng.shuffle(full)
    return [i for c in full+rest for i in c]
class PairedDataset(Dataset):
    def __init__(self, streams, seed, window): self.streams=streams; self.seed=seed; self.window=window
    def __len__(self): return len(self.streams["forget"])
    def __getitem__(self,k):
        out={}
        for n,(s,ex) in enumerate(self.streams.items()):
            key = "forget" if s=="alternate" else s
            base=self.streams[key]; c,i=divmod(k,len(base))
            j=order([len(e.input_ids) for e in base], self.seed+7*(key!="forget"), c, self.window)[i]
            out[s]={"input_ids":ex[j].input_ids,"labels":ex[j].labels,"index":j}
        return out
class EpochSampler(Sampler):
    def __init__(self,n): self.n=n; self.epoch=0
    def set_epoch(self,e): self.epoch=e
    def __len__(self): return self.n
    def __iter__(self): return iter(range(self.epoch*self.n,(self.epoch+1)*self.n))
