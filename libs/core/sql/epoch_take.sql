-- The next epoch. Runs under the exclusive leader lock, so no transaction of the old leader is open. $1 name  $2 holder
insert into leader (name, epoch, holder) values ($1, 1, $2)
on conflict (name) do update set epoch = leader.epoch + 1, holder = excluded.holder, since = clock_timestamp()
returning epoch
