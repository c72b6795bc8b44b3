"""Work on many clips or recordings, cut into shards that any machine can do: the contract.

    python -m cosytune.shards egs/mine/exp/default/config.yaml embed 3     # shard 3 of the plan, alone

A step is a list of items and a pure function of an item. Four steps are cut into shards:

    hear      stage 0   a recording -> its working track, and where somebody speaks in it
    clips     stage 0   up to 16 neighbouring stretches of a track -> clips: loudness, dither, every measurement, voice
    embed     stage 1   a clip -> its speaker embedding
    tokenize  stage 2   a clip -> its speech tokens

What looks at all items at once stays in the stage, on one machine: transcripts, where to cut, the gates that compare
clips, tables and reports. So the stage's files are the same bytes for every `nj` and every launcher, and the same as
without shards. (One kind of processor is meant: another vendor's may round the last bit of a sum in another way.)

data/shards/<step>/, on a disk that all machines see under the same path:

    plan.parquet            the items, one row group for each of the nj shards, which are neighbours of about equal
                            duration; a fingerprint for each shard
    <i>-of-<nj>.parquet     the rows of shard i, 1 <= i <= nj, in the order of its items, nothing pickled. An item that
                            fails is a row with its reason: input = done + failed, over shards too
    files/<fingerprint>/    tracks and clips, in place: carried in the parquet file, every byte of sound would have to
                            pass through the one machine that runs the stage; from here, a clip moves by renaming
    logs/<i>.log            what the shard said; slurm/ what submitit wrote

1. A shard is written beside, flushed and renamed: it is there or not. Its files are flushed before it is.
2. The fingerprint covers the content of the items (sha256 of sound files), the settings and model files that the
   step uses, the code that the steps work with and the lock. A shard with the right fingerprint is not run again; one
   that is damaged (it has a checksum), foreign, or that lacks one of its files is.
3. Running a shard twice, at once or one after the other, is harmless: a lock lets the second one wait, and it then
   finds the work done.
4. A shard that fails or is killed takes nothing from the others. The stage names it, its log, and the command that runs
   it alone; the same `./run.sh` again runs just what is missing.
5. A launcher (`shards.launcher`) only runs that command: pool (processes of this machine), slurm (a job array through
   submitit), ray (Ray Data). Whether a shard is done, the file alone says.
"""
