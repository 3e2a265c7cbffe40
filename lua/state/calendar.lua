-- Windows by the calendar of a time zone.
--
-- CALENDAR has for each zone its offsets from UTC, in milliseconds, and until when each holds: "offset until offset until ...
-- offset" (meter/engine/calendars.py writes them up to the year 2100, from when on the last one holds). UTC needs none.
--
-- A window is an hour, day, week (from Monday) or month of the zone's wall clock; it begins at the first moment that the
-- clock shows its beginning or something later. So a day of a change of the clocks has 23 or 25 hours.

local calendar = { HOUR = 3600000, DAY = 86400000, zones = {} }

-- The zone's stretches of one offset, {offset, from, until}; nil where Redis does not have the zone.
function calendar.stretches_of(zone)
  local found = calendar.zones[zone]
  if found then return found end
  local text = zone == 'UTC' and '0' or levels.calendars[zone] or redis.call('HGET', paths.CALENDAR, zone)
  if not text then error('no calendar of ' .. zone) end
  found = {}
  local from = 0
  for offset, ends in gmatch(text .. ' ' .. format('%d', NEVER), '(%-?%d+) (%d+)') do
    found[#found + 1] = { offset + 0, from, ends + 0 }
    from = ends + 0
  end
  calendar.zones[zone] = found
  return found
end

-- The month of a day, counted from the year 0, and the day on which a month begins (both counted from 1970-01-01).
function calendar.month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local of_era = z - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153) -- from March
  return (year + era * 400) * 12 + month + 2
end

function calendar.day_of_month(number)
  local from_march = number - 2
  local year = math.floor(from_march / 12)
  local era = math.floor(year / 400)
  local of_era, month = year - era * 400, from_march - year * 12
  local of_months = math.floor((153 * month + 2) / 5)
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_months - 719468
end

-- Where the window of a wall-clock time begins and ends, both on that clock. Hours go on through a change of the clocks.
function calendar.wall_bounds(window, wall)
  local HOUR, DAY = calendar.HOUR, calendar.DAY
  if window == 'hour' then return math.floor(wall / HOUR) * HOUR, (math.floor(wall / HOUR) + 1) * HOUR end
  local day = math.floor(wall / DAY)
  if window == 'day' then return day * DAY, (day + 1) * DAY end
  if window == 'week' then
    local monday = math.floor((day + 3) / 7) * 7 - 3
    return monday * DAY, (monday + 7) * DAY
  end
  local month = calendar.month_of(day)
  return calendar.day_of_month(month) * DAY, calendar.day_of_month(month + 1) * DAY
end

-- The window that a moment lies in: when it began and when it ends.
function calendar.window(window, zone, moment)
  if window == 'total' then return 0, NEVER end
  local stretches, at = calendar.stretches_of(zone), 1
  while moment >= stretches[at][3] and stretches[at + 1] do at = at + 1 end
  local offset = stretches[at][1]
  if window == 'hour' then
    local begins, ends = calendar.wall_bounds(window, moment + offset)
    return begins - offset, ends - offset
  end
  local begins, ends = calendar.wall_bounds(window, moment + offset)
  local starts, before = math.max(begins - offset, stretches[at][2]), at - 1
  while before > 0 and starts == stretches[before][3] and starts + stretches[before][1] > begins do
    starts, before = math.max(begins - stretches[before][1], stretches[before][2]), before - 1
  end
  local stops = ends - offset
  while stops >= stretches[at][3] and stretches[at + 1] do
    at = at + 1
    stops = math.max(ends - stretches[at][1], stretches[at][2])
  end
  return starts, stops
end
