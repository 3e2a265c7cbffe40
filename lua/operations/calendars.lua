-- Takes over the offsets of time zones (state/calendar.lua), before a budget names them.
-- ARGV    zones (how many); then each of the zones: zone, offsets
-- Answers ok
-- Writes  calendar
function operations.calendars(i)
  for n = i + 1, i + 2 * ARGV[i], 2 do levels.calendars[ARGV[n]] = ARGV[n + 1] end
  return 'ok'
end
