-- A write, so that whatever stands in the way of writes is told.
redis.call('HSET', KEYS[1], 'ready', (string.format('%.0f', (clock()))))
return (clock())
