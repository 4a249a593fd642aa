-- Write why the processes of a pod died, on those that have no cause yet. $1 pod's uid  $2 only what began before this
-- moment, or null  $3 the cause (JSON)
-- An id that was declared dead earlier, and whose process went on under a new one, did not die of this.
update workers
set death = $3::text::jsonb || jsonb_build_object('at', clock_timestamp())
where facts ->> 'pod_uid' = $1 and death is null and ($2::timestamptz is null or created_at < $2)
  and not exists (
    select from workers as later
    where later.facts ->> 'pod_uid' = $1 and later.id <> workers.id and later.created_at > workers.beat_at
      and ($2::timestamptz is null or later.created_at < $2))
returning id
