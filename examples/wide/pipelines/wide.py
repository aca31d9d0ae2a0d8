"""Square a hundred numbers side by side, then add the squares."""

from operations.numbers import Numbers
from operations.square import Square
from operations.total import Total


def wide():
    numbers = Numbers(count=100).execute()
    square_00 = Square(place=0).execute(numbers)
    square_01 = Square(place=1).execute(numbers)
    square_02 = Square(place=2).execute(numbers)
    square_03 = Square(place=3).execute(numbers)
    square_04 = Square(place=4).execute(numbers)
    square_05 = Square(place=5).execute(numbers)
    square_06 = Square(place=6).execute(numbers)
    square_07 = Square(place=7).execute(numbers)
    square_08 = Square(place=8).execute(numbers)
    square_09 = Square(place=9).execute(numbers)
    square_10 = Square(place=10).execute(numbers)
    square_11 = Square(place=11).execute(numbers)
    square_12 = Square(place=12).execute(numbers)
    square_13 = Square(place=13).execute(numbers)
    square_14 = Square(place=14).execute(numbers)
    square_15 = Square(place=15).execute(numbers)
    square_16 = Square(place=16).execute(numbers)
    square_17 = Square(place=17).execute(numbers)
    square_18 = Square(place=18).execute(numbers)
    square_19 = Square(place=19).execute(numbers)
    square_20 = Square(place=20).execute(numbers)
    square_21 = Square(place=21).execute(numbers)
    square_22 = Square(place=22).execute(numbers)
    square_23 = Square(place=23).execute(numbers)
    square_24 = Square(place=24).execute(numbers)
    square_25 = Square(place=25).execute(numbers)
    square_26 = Square(place=26).execute(numbers)
    square_27 = Square(place=27).execute(numbers)
    square_28 = Square(place=28).execute(numbers)
    square_29 = Square(place=29).execute(numbers)
    square_30 = Square(place=30).execute(numbers)
    square_31 = Square(place=31).execute(numbers)
    square_32 = Square(place=32).execute(numbers)
    square_33 = Square(place=33).execute(numbers)
    square_34 = Square(place=34).execute(numbers)
    square_35 = Square(place=35).execute(numbers)
    square_36 = Square(place=36).execute(numbers)
    square_37 = Square(place=37).execute(numbers)
    square_38 = Square(place=38).execute(numbers)
    square_39 = Square(place=39).execute(numbers)
    square_40 = Square(place=40).execute(numbers)
    square_41 = Square(place=41).execute(numbers)
    square_42 = Square(place=42).execute(numbers)
    square_43 = Square(place=43).execute(numbers)
    square_44 = Square(place=44).execute(numbers)
    square_45 = Square(place=45).execute(numbers)
    square_46 = Square(place=46).execute(numbers)
    square_47 = Square(place=47).execute(numbers)
    square_48 = Square(place=48).execute(numbers)
    square_49 = Square(place=49).execute(numbers)
    square_50 = Square(place=50).execute(numbers)
    square_51 = Square(place=51).execute(numbers)
    square_52 = Square(place=52).execute(numbers)
    square_53 = Square(place=53).execute(numbers)
    square_54 = Square(place=54).execute(numbers)
    square_55 = Square(place=55).execute(numbers)
    square_56 = Square(place=56).execute(numbers)
    square_57 = Square(place=57).execute(numbers)
    square_58 = Square(place=58).execute(numbers)
    square_59 = Square(place=59).execute(numbers)
    square_60 = Square(place=60).execute(numbers)
    square_61 = Square(place=61).execute(numbers)
    square_62 = Square(place=62).execute(numbers)
    square_63 = Square(place=63).execute(numbers)
    square_64 = Square(place=64).execute(numbers)
    square_65 = Square(place=65).execute(numbers)
    square_66 = Square(place=66).execute(numbers)
    square_67 = Square(place=67).execute(numbers)
    square_68 = Square(place=68).execute(numbers)
    square_69 = Square(place=69).execute(numbers)
    square_70 = Square(place=70).execute(numbers)
    square_71 = Square(place=71).execute(numbers)
    square_72 = Square(place=72).execute(numbers)
    square_73 = Square(place=73).execute(numbers)
    square_74 = Square(place=74).execute(numbers)
    square_75 = Square(place=75).execute(numbers)
    square_76 = Square(place=76).execute(numbers)
    square_77 = Square(place=77).execute(numbers)
    square_78 = Square(place=78).execute(numbers)
    square_79 = Square(place=79).execute(numbers)
    square_80 = Square(place=80).execute(numbers)
    square_81 = Square(place=81).execute(numbers)
    square_82 = Square(place=82).execute(numbers)
    square_83 = Square(place=83).execute(numbers)
    square_84 = Square(place=84).execute(numbers)
    square_85 = Square(place=85).execute(numbers)
    square_86 = Square(place=86).execute(numbers)
    square_87 = Square(place=87).execute(numbers)
    square_88 = Square(place=88).execute(numbers)
    square_89 = Square(place=89).execute(numbers)
    square_90 = Square(place=90).execute(numbers)
    square_91 = Square(place=91).execute(numbers)
    square_92 = Square(place=92).execute(numbers)
    square_93 = Square(place=93).execute(numbers)
    square_94 = Square(place=94).execute(numbers)
    square_95 = Square(place=95).execute(numbers)
    square_96 = Square(place=96).execute(numbers)
    square_97 = Square(place=97).execute(numbers)
    square_98 = Square(place=98).execute(numbers)
    square_99 = Square(place=99).execute(numbers)
    total = Total().execute(
        square_00,
        square_01,
        square_02,
        square_03,
        square_04,
        square_05,
        square_06,
        square_07,
        square_08,
        square_09,
        square_10,
        square_11,
        square_12,
        square_13,
        square_14,
        square_15,
        square_16,
        square_17,
        square_18,
        square_19,
        square_20,
        square_21,
        square_22,
        square_23,
        square_24,
        square_25,
        square_26,
        square_27,
        square_28,
        square_29,
        square_30,
        square_31,
        square_32,
        square_33,
        square_34,
        square_35,
        square_36,
        square_37,
        square_38,
        square_39,
        square_40,
        square_41,
        square_42,
        square_43,
        square_44,
        square_45,
        square_46,
        square_47,
        square_48,
        square_49,
        square_50,
        square_51,
        square_52,
        square_53,
        square_54,
        square_55,
        square_56,
        square_57,
        square_58,
        square_59,
        square_60,
        square_61,
        square_62,
        square_63,
        square_64,
        square_65,
        square_66,
        square_67,
        square_68,
        square_69,
        square_70,
        square_71,
        square_72,
        square_73,
        square_74,
        square_75,
        square_76,
        square_77,
        square_78,
        square_79,
        square_80,
        square_81,
        square_82,
        square_83,
        square_84,
        square_85,
        square_86,
        square_87,
        square_88,
        square_89,
        square_90,
        square_91,
        square_92,
        square_93,
        square_94,
        square_95,
        square_96,
        square_97,
        square_98,
        square_99,
    )
    return total
