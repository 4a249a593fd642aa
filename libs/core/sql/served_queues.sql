-- The queues that somebody serves just now: workers that are neither dead nor draining nor cordoned.
select distinct served.queue from workers, unnest(workers.queues) as served(queue) where workers.state = 'alive'
